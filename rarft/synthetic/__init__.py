"""The synthetic world: data set, tiny model and its pretraining."""
