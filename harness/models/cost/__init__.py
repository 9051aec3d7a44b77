"""What decoding costs by arithmetic: operations, bytes and seconds from the shapes of model and calls."""
