"""A look at prepared cases before anything is trained on them: anomalies, and a contact sheet."""
