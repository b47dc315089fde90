"""The servers beside which ours is measured, each as its own documentation shows it."""
