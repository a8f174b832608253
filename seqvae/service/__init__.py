"""The HTTP service and the studio: everything a pipeline can do, for many clients at once."""
