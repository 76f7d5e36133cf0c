from caltech.report.command import main

main()
