"""The promises of methods, caches, tasks and models, tried outside of a test suite: `decbench check`."""
