"""Files of a part of one's own, to start from: `decbench new`."""
