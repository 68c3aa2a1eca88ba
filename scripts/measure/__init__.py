"""Measuring any OpenAI-style server: accuracy, serving load, and what they say about a fleet. See docs/evaluation.md."""
