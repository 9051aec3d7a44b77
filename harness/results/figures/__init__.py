"""Figures of stored runs: what is drawn, how it looks, and what a file says of itself. No number is made here."""
