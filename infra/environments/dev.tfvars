environment                  = "dev"
runs_kept_days               = 14
untagged_images_kept_days    = 7
delete_buckets_with_contents = true
