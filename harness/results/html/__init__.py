"""The report: one HTML page that holds everything it shows, and asks no network for anything."""
