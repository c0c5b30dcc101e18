"""The pages of an annotation project, served over HTTP."""
