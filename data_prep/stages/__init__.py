"""The stages from photos to training data, one module each; `stage.py` says what a stage is."""
