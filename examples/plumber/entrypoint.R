plumber::pr_run(plumber::pr("/srv/plumber.R"), host = "0.0.0.0", port = 8000, docs = FALSE)
