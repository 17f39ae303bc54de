//! External programs: argv only (never a shell), a time limit, `LC_ALL=C`, secrets on stdin only, and everything
//! logged without them.
