"""Published claims as data, what the store holds about each, and the verdict that follows."""
