"""The data sets, one file each: the file is the registration (see `pipeline.data.registry`)."""
