# The API of the Plumber story: asynchronous where it waits, so that one slow
# request does not hold up the others.
library(promises)
# Forked when they are needed: the API listens at once, and a worker costs no
# start of R.
future::plan("multicore", workers = 24)

healthy <- TRUE

#* Is a number odd or even?
#* @get /parity
#* @serializer text
function(int) {
  if (as.integer(int) %% 2L == 1L) "odd" else "even"
}

#* Answer after five seconds.
#* @get /wait
#* @serializer unboxedJSON
function() {
  future_promise({
    Sys.sleep(5)
    list(time = format(Sys.time()))
  })
}

#* OK, or 500 once it has failed.
#* @get /health
#* @serializer text
function(res) {
  if (healthy) return("OK")
  res$status <- 500
  "failed"
}

#* From now on /health fails.
#* @post /fail
function() {
  healthy <<- FALSE
  NULL
}

#* End the process.
#* @post /quit
function() {
  later::later(function() quit(save = "no"), 0.1)
  NULL
}
