"""From a model and cases to rows."""
