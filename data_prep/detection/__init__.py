"""Face detection on person crops with RetinaFace."""
