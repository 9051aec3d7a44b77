"""The regression gate: what runs did, against what a committed baseline says they do. Pure functions of stored rows."""
