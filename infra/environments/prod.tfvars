environment                  = "prod"
runs_kept_days               = 180
untagged_images_kept_days    = 30
delete_buckets_with_contents = false
