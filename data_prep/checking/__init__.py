"""What `data_prep.check` is made of: it recognises a folder, examines its images, judges its labels, draws a sheet."""
