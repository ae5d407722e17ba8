"""What pages share: settings, state, caches, the queue of simulations, components."""
