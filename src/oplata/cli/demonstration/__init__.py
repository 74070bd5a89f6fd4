"""What ``oplata demo`` does: a played bank and a played shop meet the real endpoint, worker and database."""
