"""The stages from photos to training data, one module each; `stage.py` defines a stage."""
