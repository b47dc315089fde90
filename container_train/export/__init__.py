"""From trained weights to the artifact that is served: graph, int8, and accuracy through the serving code."""
