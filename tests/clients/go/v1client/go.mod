module txregistry.test/v1client

go 1.24
