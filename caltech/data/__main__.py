from caltech.data.audit import main

main()
