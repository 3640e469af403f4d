"""Images from the Dockerfiles of a project: which, how, where to; and the manifest that says what became."""
