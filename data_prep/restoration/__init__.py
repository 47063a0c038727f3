"""Face restoration with GPEN, and the frame that faces are cut out in."""
