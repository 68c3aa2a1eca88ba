"""What making models and testing the server share: dialects, the meaning of structured text; curation and training on top."""
