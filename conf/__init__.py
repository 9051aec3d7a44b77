"""The Hydra configuration, a package so that it is found in a checkout and in a wheel."""
