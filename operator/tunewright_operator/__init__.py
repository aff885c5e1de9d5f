"""The Tunewright operator: reconciles FineTuneJob, ModelVersion and InferenceService."""
