from caltech.data.command import main

main()
