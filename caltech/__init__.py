"""A Hydra sweep framework for transfer-learning studies on Caltech-101."""
