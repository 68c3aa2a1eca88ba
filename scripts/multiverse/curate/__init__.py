"""The Curator: sequential answers in, structured answers out, by a model in five stages or by rules."""
