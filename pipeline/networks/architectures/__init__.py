"""The backbones known by name, one file each: the file is the registration (see `pipeline.networks.registry`)."""
