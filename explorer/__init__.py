"""Convert a trained ReLU network into a spiking one, and see what happens. [Bu2022]"""
