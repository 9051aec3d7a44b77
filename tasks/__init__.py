"""Tasks, one file each: instances, prompts and graders."""
