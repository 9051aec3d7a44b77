"""What both families of decoders stand on: model interface, counter, predictions, randomness, keys and values."""
