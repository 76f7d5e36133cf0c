from caltech.tracking.command import main

main()
