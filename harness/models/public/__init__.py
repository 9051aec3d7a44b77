"""Published checkpoints in the in-tree transformer: read from a local folder, strictly by key, without remote code."""
