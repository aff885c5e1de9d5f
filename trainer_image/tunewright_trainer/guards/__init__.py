"""What ends or warns a run that goes wrong: divergence, hangs, leaks, too little memory, broken collectives."""
