"""What makes a kernel a Spark ML Transformer: params, columns, fusion, persistence. No tasks."""
