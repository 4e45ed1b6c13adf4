module ergon.dev/bench/backend

go 1.24
