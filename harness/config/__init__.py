"""What a run is: composition of a config, typed options, the catalogue, names of runs."""
