"""From command line to stored result: configuration, runs and sweeps."""
