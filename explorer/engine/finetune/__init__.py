"""Fine-tuning of the spiking form: the graph in training, and the two ways through it."""
