mod making;

mod convergence;
mod deletes;
mod local;
mod voids;
