"""Where runs are reported besides parquet: nowhere, to Weights & Biases, or to MLflow."""
