"""Amazon S3, Google Cloud Storage and servers like them as a storage engine, through boto3 in threads."""
