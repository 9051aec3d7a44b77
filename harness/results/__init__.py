"""What runs wrote: the store, and every number, table and figure derived from it. Nothing here decodes."""
